"""The HTTP service and its one page. fastapi, uvicorn and their like are imported when `serve` is called."""
