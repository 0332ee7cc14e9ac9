"""`ray start` for a cluster of several nodes that all listen to loopback alone.

Ray takes a loopback address for what it cannot mean in a cluster of several nodes, and listens to every network of the machine
instead, unless it is told that there is but one node. Here this process knows that there are several, and those that it starts are
told that there is one.
"""

import os
import sys

NAME = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

os.environ[NAME] = "1"

from ray._private import services  # noqa: E402
from ray.scripts.scripts import main  # noqa: E402

os.environ[NAME] = "0"
services.resolve_ip_for_localhost = lambda host: host
services.get_node_ip_address = lambda address=None: "127.0.0.1"
sys.exit(main())
