"""YAML as data: safe loader, bounded in size and depth."""

from __future__ import annotations

from typing import Any

from edgepose.modelfiles.files import MAX_METADATA


def parse_yaml(data: bytes, where: str) -> Any:
    """The document. Raises ValueError that names `where` for anything that is not plain YAML of at most 4 MiB."""
    if len(data) > MAX_METADATA:
        raise ValueError(f"{where}: got {len(data)} bytes of YAML, expected at most {MAX_METADATA}")
    import yaml

    try:
        return yaml.safe_load(data)  # not the loader in C: it dies of deep nesting
    except RecursionError:
        raise ValueError(f"{where}: the YAML is nested too deeply") from None
    except (yaml.YAMLError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: not a YAML document: {str(error)[:300]}") from None
