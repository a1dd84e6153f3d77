"""The router of all paths under /admin."""

from fastapi import APIRouter

from src.routers import (
    admin_audit,
    admin_config,
    admin_operations,
    admin_stream,
    admin_usage,
    admin_users,
    admin_workspaces,
)

router = APIRouter()
router.include_router(admin_users.router, prefix="/users")
router.include_router(admin_workspaces.router, prefix="/workspaces")
router.include_router(admin_audit.router)
router.include_router(admin_stream.router)
router.include_router(admin_operations.router)
router.include_router(admin_usage.router)
router.include_router(admin_config.router)
