"""stub"""

import contextlib
from budgetflow.errors import ConfigError, UserError


@contextlib.contextmanager
def user_code(field, path):
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{field} = {path!r}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
