"""How programs reach the project's local broker, which manifests call `nats://local`.

nc = await nats.connect(**broker.connect_options())
"""

import json
from pathlib import Path
from typing import Any

from modelyard.base.errors import UserError
from modelyard.sdk import find
from modelyard.wire.work import LOCAL_BROKER


def connect_options(folder: Path | None = None) -> dict[str, Any]:
    """Keyword arguments for `nats.connect`: servers, user and password of the broker of the project around `folder`.

    folder: the current one by default. Raises UserError with the next step when its server or its broker does not run.
    """
    find.gateway(folder)  # refuses a stopped server
    data = find.data_folder(folder)
    try:
        announced = Path(json.loads((data / "server.json").read_text())["broker"])
        found = json.loads(announced.read_text())
        return {"servers": [str(found["url"])], "user": str(found["user"]), "password": str(found["password"])}
    except FileNotFoundError:
        raise UserError(
            f"no local broker runs for {data.parent}: it starts with the first ModelStream whose source or sink has "
            f"uri: {LOCAL_BROKER}, so apply one; if there is one, {data / 'server' / 'server.log'} says what is wrong"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"how the local broker of {data.parent} is reached cannot be read ({error!r}): stop 'modelyard up' and "
            "start it again"
        ) from error
