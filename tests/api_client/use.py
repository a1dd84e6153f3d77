"""Call the API with the client that openapi-python-client generates from the OpenAPI document.

Reads the address, an account and its password from the environment. Prints the responses as JSON.
"""

import json
import os

from shield_api import AuthenticatedClient, Client
from shield_api.api.authentication import create_token, log_in
from shield_api.api.jobs import get_job, list_jobs
from shield_api.models import Job, JobPage, JobStatus, LoginForm, LoginRequest, Problem, Token

url, email = os.environ["AG_UI_URL"], os.environ["AG_UI_EMAIL"]
client = Client(base_url=url)

refused = log_in.sync(client=client, body=LoginRequest(email=email, password="x"))
assert isinstance(refused, Problem)

form = LoginForm(username=email, password=os.environ["AG_UI_PASSWORD"])
token = create_token.sync(client=client, body=form)
assert isinstance(token, Token)

user = AuthenticatedClient(base_url=url, token=token.access_token)
page = list_jobs.sync(client=user, limit=1, status=JobStatus.RUNNING)
assert isinstance(page, JobPage)
job = get_job.sync(page.items[0].id, client=user)
assert isinstance(job, Job)
percent: float | None = job.percent
print(json.dumps({"refused": refused.type_, "job": job.id, "percent": percent}))
