"""Administration: everything under /admin, one module per subject."""

from fastapi import APIRouter

from src.routers import admin_audit

router = APIRouter()
router.include_router(admin_audit.router)
