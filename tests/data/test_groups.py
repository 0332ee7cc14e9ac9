"""Documents of one group as one sequence."""

from genai_core.data.documents import Document
from genai_core.data.groups import join_groups, shuffle, shuffle_groups
from genai_core.data.packing import pack_documents

END = 0


def document(name: str, group: str) -> Document:
    return Document(doc_id=name, group=group, title=name, text=name)


def test_a_groups_documents_become_one_sequence_with_the_end_between_them():
    joined = list(join_groups([[1, 2], [3], [], [4, 5], [6]], ["a", "a", "a", "b", "a"], END))
    assert joined == [[1, 2, END, 3], [4, 5], [6]]


def test_a_joined_group_is_one_segment_that_may_look_back():
    alone = pack_documents([[1, 2, 3], [4, 5, 6]], 10, END)
    joined = pack_documents(join_groups([[1, 2, 3], [4, 5, 6]], ["a", "a"], END), 10, END)
    assert alone[0].seq_lengths.tolist() == [5, 5]
    assert joined[0].seq_lengths.tolist() == [9, 1]  # the last is padding
    assert joined[0].input_ids.tolist() == [END, 1, 2, 3, END, 4, 5, 6, END, END]


def test_groups_are_shuffled_whole_and_stay_in_order_inside():
    documents = [document(f"{group}{index}", group) for group in "abcdefgh" for index in range(3)]
    mixed = shuffle_groups(documents, seed=3)
    assert sorted(one.doc_id for one in mixed) == sorted(one.doc_id for one in documents)
    assert [one.group for one in mixed[::3]] != list("abcdefgh")
    for start in range(0, len(mixed), 3):
        group = mixed[start].group
        assert [one.doc_id for one in mixed[start : start + 3]] == [f"{group}{index}" for index in range(3)]
    assert shuffle_groups(documents, seed=3) == mixed != shuffle_groups(documents, seed=4)
    assert shuffle(documents, seed=3) != documents
