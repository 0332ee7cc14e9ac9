"""The automations of a Prefect server: who is told of a bad end, what a new dataset starts, what follows a crash.

    a run of ours fails, crashes, times out or is refused   -> a notification, where a place for it was given
    a run of ours gives no sign of life                     -> it has crashed: its place in the queue is free again
    a run of ours has crashed                               -> it is queued again, and resumes (flows/session.py counts);
                                                               off at first, for who stops a worker may not want that
    the flow `augmentation` publishes a new dataset         -> the fine-tuning of its recipe, on that dataset

They are known by name, and marked with a digest of what they were made as. One that has the mark is left alone, whatever
a person has changed in it; one that has another is renewed, and stays off if it was off.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from genai_core.errors import ConfigError
from genai_core.storage.digest import digest_json

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

TAG = "genai"
"""Every run of ours has it."""

NOTIFIER = "genai-notify"
"""Name of the block that `--notify URL` makes."""

SILENCE_SECONDS = 120
"""So long without a heartbeat, of one each 30 seconds, and a run has crashed."""

SUBJECT = "genai: {{ flow_run.name }} ({{ flow.name }}) {{ flow_run.state.name }}"
BODY = """\
Flow run {{ flow_run.name }} of {{ flow.name }} ended as {{ flow_run.state.name }}.
{{ flow_run.state.message or '' }}
{{ (flow_run | ui_url) or 'PAGE/runs/flow-run/' ~ flow_run.id }}"""


def notifier(client: SyncPrefectClient, where: str) -> UUID | None:
    """Return the block that notifications go to, made if `where` is an address; None if there is none.

    Args:
        client: of the Prefect server.
        where: an address that takes POST requests with JSON {"text"}, as Slack, Mattermost and others do; or a block that
            is there, as SLUG/NAME; '' = the one of an earlier `--notify`.

    Raises:
        ConfigError: there is no such block.
    """
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.exceptions import ObjectNotFound

    if where.startswith(("http://", "https://")):
        block: Any = CustomWebhookNotificationBlock(
            name=NOTIFIER,
            url="{{address}}",  # it may hold a token: what is shown in Prefect's page is the place of a secret
            json_data={"text": "{{subject}}\n{{body}}"},
            secrets={"address": where},
        )
        made: UUID = block.save(NOTIFIER, overwrite=True)
        return made
    slug, _, name = (where or f"custom-webhook/{NOTIFIER}").partition("/")
    try:
        found: UUID = client.read_block_document_by_name(name, slug).id
    except ObjectNotFound:
        if not where:
            return None
        raise ConfigError(
            f"--notify {where!r} is neither an address (https://...) nor a block that Prefect has, as SLUG/NAME such as "
            "slack-webhook/mine."
        ) from None
    return found


def _of_ours() -> dict[str, Any]:
    return {
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},
    }


def of_server(notify: UUID | None, page: str) -> list[AutomationCore]:
    """Return the automations for all runs of ours on a server.

    Args:
        notify: the block that notifications go to.
        page: address of the server's pages, for one that does not know its own (PREFECT_UI_URL).
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState, SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    from tasks.events import REFUSED

    ends = ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", REFUSED)
    wanted = [
        AutomationCore(
            name="genai: a run without a sign of life has crashed",
            description="Its machine is gone or was switched off.",
            trigger=EventTrigger(
                **_of_ours(),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                after={"prefect.flow-run.heartbeat"},
                expect={
                    "prefect.flow-run.heartbeat",
                    *(f"prefect.flow-run.{end}" for end in (*ends, "Suspended", "Paused")),
                },
                threshold=1,
                within=timedelta(seconds=SILENCE_SECONDS),
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message="No sign of life: its machine is gone.")],
        ),
        AutomationCore(
            name="genai: a crashed run resumes",
            description="It is queued again and goes on where it was. What crashes too often fails. Off until you switch it on.",
            enabled=False,
            trigger=EventTrigger(
                **_of_ours(),
                for_each={"prefect.resource.id"},
                expect={"prefect.flow-run.Crashed"},
                posture=Posture.Reactive,
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.SCHEDULED, name="AwaitingRetry", message="It has crashed and resumes."
                )
            ],
        ),
    ]
    if notify is not None:
        wanted.append(
            AutomationCore(
                name="genai: tell of a run that failed, crashed or was refused",
                description="Refused: finished, but the gate refused, and the champion is unchanged.",
                trigger=EventTrigger(
                    **_of_ours(),
                    for_each={"prefect.resource.id"},
                    expect={f"prefect.flow-run.{end}" for end in ("Failed", "Crashed", "TimedOut", REFUSED)},
                    posture=Posture.Reactive,
                ),
                actions=[SendNotification(block_document_id=notify, subject=SUBJECT, body=BODY.replace("PAGE", page))],
            )
        )
    return wanted


def of_recipe(recipe_name: str, finetuning: UUID) -> AutomationCore:
    """Return the automation that fine-tunes on a new dataset of a recipe.

    Only the flow `augmentation` ends with its dataset; the others go on by themselves.
    """
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    from tasks.events import DATASET_PUBLISHED

    recipe = {"__prefect_kind": "jinja", "template": "{{ event.payload.recipe | tojson }}"}
    return AutomationCore(
        name=f"genai: a new dataset of {recipe_name} is fine-tuned on",
        description="With the recipe that the dataset was prepared by.",
        trigger=EventTrigger(
            match={
                "prefect.resource.id": "genai.dataset.*",
                "genai.recipe": recipe_name,
                "genai.flow": "augmentation",
                "genai.stage": "augment",
            },
            expect={DATASET_PUBLISHED},
            posture=Posture.Reactive,
        ),
        actions=[
            RunDeployment(deployment_id=finetuning, parameters={"recipe": {"__prefect_kind": "json", "value": recipe}})
        ],
    )


def _in_order(value: Any) -> Any:
    """Return a JSON value whose lists are sorted: most were sets, whose order is another in every process."""
    if isinstance(value, dict):
        return {name: _in_order(item) for name, item in value.items()}
    return sorted((_in_order(item) for item in value), key=str) if isinstance(value, list) else value


def bring_automation(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    """Bring one automation to what is wanted; return created, updated or unchanged."""
    mark = f"[{digest_json(_in_order(wanted.model_dump(mode='json')))[:12]}]"
    marked = wanted.model_copy(update={"description": f"{wanted.description} {mark}"})
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(marked)
        return "created"
    [there, *_] = found
    if mark in there.description:
        return "unchanged"
    client.update_automation(there.id, marked.model_copy(update={"enabled": there.enabled}))
    return "updated"
