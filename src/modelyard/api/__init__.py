"""What users write: the kinds of `modelyard.dev/v1alpha1`, and everything derived from their one definition."""

from typing import Final

GROUP: Final = "modelyard.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "modelyard.dev/v1alpha1"
