"""Errors of accounts, workspaces and invitations."""

from src.utils.errors import DomainError, FieldFaultError, NotFoundError


class AccountNotFoundError(NotFoundError):
    """There is no account with this id or address."""

    slug = "account-not-found"
    title = "No such account"
    detail = "GET /admin/users lists the accounts."


class InvitationNotFoundError(NotFoundError):
    """There is no such invitation, or it was accepted, withdrawn or replaced."""

    slug = "invitation-not-found"
    title = "No such invitation"
    detail = "GET /admin/users/invitations lists those that can be accepted."


class WorkspaceNotFoundError(NotFoundError):
    """There is no workspace with this name. The message is the name."""

    slug = "workspace-not-found"
    title = "No such workspace"
    detail = "GET /admin/workspaces lists them; POST makes one."


class MemberNotFoundError(NotFoundError):
    """The user is not a member of the workspace."""

    slug = "member-not-found"
    title = "This user does not belong to this workspace"
    detail = "GET /admin/workspaces/{name}/members lists who does."


class RegistrationClosedError(DomainError):
    """The setting REGISTRATION does not allow this. The message is its value."""

    status = 403
    slug = "registration-closed"
    title = "Accounts are not made this way here"
    detail = "Ask an administrator for an account or an invitation."


class MailNotConfiguredError(DomainError):
    """SMTP_URL is not set."""

    status = 409
    slug = "mail-not-configured"
    title = "This server sends no mail"
    detail = (
        "Ask an administrator: POST /admin/users/{id}/reset-link gives a link to pass on. "
        "Operators set SMTP_URL to have it sent."
    )


class UserExistsError(FieldFaultError):
    status = 409
    slug = "account-exists"
    title = "There is an account with this address"
    detail = "Its owner can log in, or have its password set anew: POST /auth/password/forgot."

    def __init__(self, field: str = "email") -> None:
        super().__init__("there is an account with this address", field)


class MembershipRejectedError(FieldFaultError):
    """The workspace of a membership does not exist, accepts no members, or is named twice."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message, f"memberships.{index}.workspace")


class LinkNotValidError(FieldFaultError):
    """The link is unknown, used, expired or no longer valid."""

    slug = "link-not-valid"
    title = "This link cannot be used any more"
    detail = "It was used or has expired: ask for a new one."

    def __init__(self, field: str = "token") -> None:
        super().__init__("is not valid, or not any more", field)


class LastAdminError(DomainError):
    """No active administrator would be left."""

    status = 409
    slug = "last-admin"
    title = "Nobody would be left who may administer"
    detail = "Give another active account the role admin first."


class WorkspaceExistsError(DomainError):
    """There is a workspace with this name."""

    status = 409
    slug = "workspace-exists"
    title = "There is a workspace of this name"
    detail = "Choose another name."


class WorkspaceInUseError(DomainError):
    """The workspace has members or jobs, or is the default workspace."""

    status = 409
    slug = "workspace-in-use"
    title = "The workspace is not empty"
    detail = "Only one without members and jobs can be deleted, and never the default one."


class DefaultWorkspaceError(DomainError):
    """Members of the default workspace cannot be changed: it has all users, with their account's role."""

    status = 409
    slug = "default-workspace"
    title = "Everybody belongs to the default workspace"
    detail = "There the account's own role counts: change that."
