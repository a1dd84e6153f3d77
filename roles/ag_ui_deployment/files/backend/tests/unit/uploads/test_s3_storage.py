"""The library of S3 takes memory of sites that use it, and of no others."""

import subprocess
import sys

from tests.support.cli import BACKEND

PROGRAM = """
import sys
from src.composition.services import Services
from tests.support.builders import settings_of

Services.build(settings_of(UPLOADS_DIRECTORY="/srv/uploads"))
assert "botocore" not in sys.modules
Services.build(
    settings_of(
        UPLOADS_S3_TARGET="s3://documents",
        UPLOADS_S3_ACCESS_KEY_ID="id",
        UPLOADS_S3_SECRET_ACCESS_KEY="secret",
    )
)
assert "botocore" in sys.modules
"""


def test_library_is_imported_only_for_a_bucket() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=BACKEND, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
