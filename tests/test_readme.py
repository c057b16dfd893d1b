"""The README's table of settings is the truth."""

from pathlib import Path

from pydantic import SecretStr

from turnpool.settings import Settings

README = Path(__file__).parent.parent / "README.md"


def settings_table() -> str:
    """The table as it must stand in the README."""
    lines = ["| `TURNPOOL_…` | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = f"`{default}`" if default not in ("", None) else ""
        lines.append(f"| `{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines)


def test_the_readme_lists_every_setting_with_its_default() -> None:
    """A setting that is added or changed has to be told."""
    assert settings_table() in README.read_text()
