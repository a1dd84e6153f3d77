"""A real LiteLLM proxy with simulated Shield services behind it.

The services are the MCP server with the seven tools, the orchestrator whose jobs publish to the
stream, and a model that answers as its prompt directs.

Runs in a virtual environment of its own (script/bootstrap gateway):
`python -m tests.shield.gateway --help`. The module `marks` documents the directives in the
arguments of a call, `script` those in a prompt.
"""
