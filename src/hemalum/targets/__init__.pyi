from .extra_targets import EXTRA_TARGETS as EXTRA_TARGETS
from .representations import BY_CLASS as BY_CLASS
from .representations import REPRESENTATIONS as REPRESENTATIONS
from .representations import TYPED as TYPED
from .representations import Head as Head
from .representations import Representation as Representation
from .representations import find_representation as find_representation
from .representations import select as select
