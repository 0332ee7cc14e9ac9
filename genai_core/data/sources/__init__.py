"""One file per kind of source. Each returns a ReadResult; `registry.read_documents` chooses."""
