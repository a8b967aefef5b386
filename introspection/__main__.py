"""`python -m introspection`: answers RFC 7662."""

import sys

from introspection.app import IntrospectionService
from introspection.settings import IntrospectionSettings
from serving.starting import start

if __name__ == "__main__":
    sys.exit(start(IntrospectionService, IntrospectionSettings, about=__doc__ or ""))
