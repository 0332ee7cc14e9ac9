"""`python -m genai_core.cli` is the `genai` command."""

from genai_core.cli.main import main

main()
