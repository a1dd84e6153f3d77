"""The last applied settings, kept to detect changes."""

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from src.utils.database import Base


class AppliedSettingRow(Base):
    """A keyed digest of a setting's value, which detects a change without storing the value."""

    __tablename__ = "applied_settings"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    key_id: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(BYTEA)
