"""A real LiteLLM proxy, and behind it what Shield has there.

That is the MCP server with the seven tools, the orchestrator whose jobs publish on the stream, and a
model that says what its prompt asks for.

Runs in a virtual environment of its own (script/bootstrap gateway): `python -m tests.shield.gateway --help`.
What a caller can ask for inside the arguments of a call stands in `marks`, in a prompt in `script`.
"""
