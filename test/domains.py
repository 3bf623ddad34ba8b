"""Domains: numbers under which nodes find one another, so that tests do not meet the nodes of others."""

import os
import random


def own_domain():
    """Choose a domain that no test of another worker (pytest-xdist) has at the moment."""
    worker = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))
    workers = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', '1'))
    return str(random.randrange(1 + worker, 200, workers))
