"""Administration: everything under /admin."""

from fastapi import APIRouter

router = APIRouter()
