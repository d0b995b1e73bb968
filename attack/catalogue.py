"""Every attack there is, in the order in which they are run."""

from .connections import Churn, HalfOpen, Vanishing
from .enemy import Attack
from .over_http import (
    BigRequests,
    ChunkFlood,
    Injection,
    NeverReadsResponses,
    Pipeline,
    RunserverTraversal,
    SlowBodies,
    SlowHandshakes,
    SlowHeads,
    Smuggling,
    Traversal,
)
from .over_http2 import (
    ContinuationFlood,
    EmptyFrames,
    HeaderBomb,
    Http2PingFlood,
    MadeToReset,
    RapidReset,
    SettingsFlood,
    ShutWindow,
)
from .over_websockets import (
    Bombs,
    BrokenText,
    CrossSite,
    FragmentFlood,
    MessageFlood,
    NeverReads,
    OversizedFrames,
    PingFlood,
    SlowFrames,
    SmallBombs,
)

__all__ = ["ATTACKS", "WEAK"]

ATTACKS: tuple[type[Attack], ...] = (
    SlowHeads,
    SlowHandshakes,
    SlowBodies,
    SlowFrames,
    NeverReadsResponses,
    NeverReads,
    BigRequests,
    OversizedFrames,
    Smuggling,
    Injection,
    BrokenText,
    Bombs,
    SmallBombs,
    FragmentFlood,
    PingFlood,
    MessageFlood,
    ChunkFlood,
    Pipeline,
    RapidReset,
    MadeToReset,
    ContinuationFlood,
    SettingsFlood,
    Http2PingFlood,
    EmptyFrames,
    HeaderBomb,
    ShutWindow,
    CrossSite,
    Traversal,
    RunserverTraversal,
    Churn,
    Vanishing,
    HalfOpen,
)

#: Limits off: a server that has to fail.
WEAK = (
    "--head-timeout", "100000",
    "--write-timeout", "100000",
    "--max-message-bytes", "100000000000",
    "--outbox-limit-bytes", "100000000000",
    "--max-body-bytes", "100000000000",
)  # fmt: skip
