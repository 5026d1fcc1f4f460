"""Every error that saaa raises on purpose: one root, a subclass for each situation.

A message says what is wrong and what to do about it, in words that may be shown to the caller. `serving.errors` maps
each class to a gRPC code; nothing here knows of gRPC.
"""

from __future__ import annotations


class SaaaError(Exception):
    """Root of all errors raised on purpose.

    Args:
        message: what is wrong and what to do, in one or two sentences; safe to show to a caller.
        field: path of the offending field in the caller's terms, such as "graph.objects[2].box"; empty when the error
            is not about one field.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    @property
    def reason(self) -> str:
        """The situation as an UPPER_SNAKE_CASE word: the class name. It is what clients may branch on."""
        name = type(self).__name__
        return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


class InvalidInput(SaaaError):
    """The caller's input is wrong; sending it again cannot help."""


class ImageRejected(InvalidInput):
    """The bytes are not a picture that saaa accepts."""


class SceneGraphError(InvalidInput):
    """The scene graph contradicts itself, the image or the limits."""


class OptionInvalid(InvalidInput):
    """An option of a request or of a configuration is outside its range or unknown."""


class UploadInvalid(InvalidInput):
    """The pieces of an upload do not fit together."""


class AttributionFailed(SaaaError):
    """A method gave a map that is not finite; another method, or another target, may work."""


class ModelNotFound(SaaaError):
    """No model of that name and version is served."""


class ArchiveError(SaaaError):
    """An archive is missing, corrupt, of an unknown format version, or not what was asked for."""


class NotTraceable(ArchiveError):
    """A model, or a method of attribution, cannot be made one graph; the eager one still serves."""


class DataError(SaaaError):
    """Training data is missing, empty or malformed."""


class CheckpointError(SaaaError):
    """A checkpoint cannot be read or does not fit the model."""


class TrainingDiverged(SaaaError):
    """The loss, or its gradient, is no longer a finite number; training on cannot help."""


class GeneratorFailed(SaaaError):
    """An image generator or a language model failed; what it made is kept, and the same command goes on."""


class RetryLater(SaaaError):
    """There is too much to do now; the same request may succeed later.

    Args:
        message: as in `SaaaError`.
        retry_after_s: seconds after which a retry is sensible, at least 0.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LaneFull(RetryLater):
    """The lane cannot finish this work before the caller's deadline."""


class CallerLimited(RetryLater):
    """The caller has used up what one caller may ask for."""


class ServiceFull(RetryLater):
    """As many calls are at work as the service takes in, whoever makes them."""


class Unauthenticated(SaaaError):
    """The call does not say, in a way that can be trusted, who makes it."""


class NotPermitted(SaaaError):
    """The caller is known, and may not do this."""


class DeadlineExceeded(SaaaError):
    """The caller's deadline passed before the work was done."""


class BackendUnavailable(SaaaError):
    """The backend cannot be reached, or lost the work; another attempt may succeed."""


class WorkerDied(BackendUnavailable):
    """The process that computed died with the work; another is started, and the work may be sent again."""


class BackendFailed(SaaaError):
    """The backend answered with a failure of its own; another attempt would fail alike."""


class StartFailed(SaaaError):
    """The service cannot start: port in use, model folder missing, no usable Java and the like."""


class NotEnabled(SaaaError):
    """The service was started without this part."""


class RatingConflict(SaaaError):
    """Another rating is kept under the same request id."""


class RatingsUnavailable(SaaaError):
    """A rating could not be written; sending the same one again may succeed."""
