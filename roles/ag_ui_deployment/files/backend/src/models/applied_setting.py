"""The settings that were last applied."""

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.orm import Mapped, mapped_column

from src.utils.database import Base


class AppliedSettingRow(Base):
    """What is kept of a setting: not its value, but what tells whether it is another."""

    __tablename__ = "applied_settings"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    key_id: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(BYTEA)
