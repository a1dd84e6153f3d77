"""Request bodies of login, token refresh and password change."""

from typing import Annotated

from pydantic import BaseModel, Field

# Longer than any valid value. The limit for passwords is checked when they are set.
LoginText = Annotated[str, Field(max_length=2000)]
Code = Annotated[str, Field(max_length=64)]


class LoginRequest(BaseModel):
    """`otp` or `recovery_code` where the account asks for a second factor."""

    email: LoginText
    password: LoginText
    otp: Code | None = None
    recovery_code: Code | None = None
    cookies: bool = Field(
        default=False, description="Keep the tokens in cookies of the browser, not in the answer"
    )


class LoginForm(BaseModel):
    """As OAuth2 clients send it; scopes and the client are not looked at."""

    grant_type: Annotated[str | None, Field(max_length=8, pattern="^password$")] = None
    username: LoginText
    password: Annotated[LoginText, Field(json_schema_extra={"format": "password"})]
    scope: LoginText = ""
    client_id: LoginText | None = None
    client_secret: Annotated[LoginText | None, Field(json_schema_extra={"format": "password"})] = (
        None
    )
    otp: Code | None = None
    recovery_code: Code | None = None


class RefreshToken(BaseModel):
    """Without it the cookie counts."""

    refresh_token: LoginText


class PasswordChange(BaseModel):
    current_password: LoginText
    new_password: LoginText
