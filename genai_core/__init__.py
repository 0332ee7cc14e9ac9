"""genai: the library behind the flows. Runs in a notebook with no server anywhere and knows no Prefect."""

__version__ = "0.1.0"
