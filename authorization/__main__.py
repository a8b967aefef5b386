"""`python -m authorization`: issues access tokens (RFC 6749) and says what it supports (RFC 8414)."""

import sys

from authorization.app import AuthorizationService
from authorization.settings import AuthorizationSettings
from serving.starting import start

if __name__ == "__main__":
    sys.exit(start(AuthorizationService, AuthorizationSettings, about=__doc__ or ""))
