"""What every channel layer promises, as tests: subclass one class, and pytest runs them all.

::

    class TestMyLayer(ChannelLayerConformance):
        async def make_layer(self, **options):
            return MyChannelLayer(**options)

        def in_another_process(self, **options):
            return MyChannelLayer, options

Rules of this package:

- A chapter is a class, in a file of its own. What they share is in ``_suite.py``.
- What a layer need not do is an attribute of the class, with the strictest default. A test that
  is not for a layer is skipped, and says for which attribute.
"""

from ._channels import Channels
from ._groups import Groups
from ._life import Life
from ._messages import KINDS, Messages
from ._processes import Processes
from ._sinks import Sinks
from ._suite import LayerSuite
from ._threads import Threads
from .sink import RecordingSink

__all__ = ["KINDS", "ChannelLayerConformance", "LayerSuite", "RecordingSink"]


class ChannelLayerConformance(
    Channels, Groups, Messages, Sinks, Threads, Life, Processes, LayerSuite
):
    """The suite.

    A subclass implements ``make_layer`` and, unless its layer stays in one process,
    ``in_another_process``. Where the layer promises less, it says so by an attribute.
    """
