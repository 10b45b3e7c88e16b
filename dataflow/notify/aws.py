"""What the targets in AWS share: the client, what its errors mean, and how they are shown."""

from __future__ import annotations

import threading
from abc import abstractmethod
from typing import Any, ClassVar

import msgspec

from dataflow.errors import UserError, missing_extra, wrong_aws_certificate
from dataflow.notify.base import Target
from dataflow.notify.http import Answer, in_time

__all__ = ["AWSTarget", "refusal"]

ANSWER = 4.0
"""Seconds to connect, and seconds to answer, at most. `notify` tries again, not AWS's library."""

WRONG_RECORD = frozenset(
    {
        *("InvalidParameter", "ParameterValueInvalid", "ValidationError", "ValidationException"),
        *("InvalidArgument", "MalformedDetail"),
    }
)
"""Errors that the same record always gets."""

BUSY = frozenset(
    {
        *("Throttled", "ThrottledException", "Throttling", "ThrottlingException"),
        *("TooManyRequestsException", "RequestLimitExceeded", "KMSThrottling"),
        *("InternalError", "InternalException", "InternalFailure", "ServiceUnavailable"),
    }
)
"""Errors that pass."""


class AWSTarget(Target):
    """A target whose address is an ARN, which names its region.

    Credentials are those that AWS's own tools find. A subclass sets `service` and `right`, and
    implements `call`.
    """

    service: ClassVar[str]
    """The name of the service, as boto3 has it."""

    right: ClassVar[str]
    """The right that the credentials need."""

    def __init__(self, address: str) -> None:
        """Raises `UserError` if it is no ARN, or if boto3 is not installed or cannot be used."""
        super().__init__(address)
        if not address.startswith("arn:"):
            raise UserError(
                f"the address of the notification target {self.name} must be an ARN: set it in "
                f"ANOMALY_NOTIFY_{self.name.upper()}."
            )
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ModuleNotFoundError:
            raise missing_extra(f"The notification target {self.name}", "aws") from None
        self.region = address.split(":")[3]
        config = Config(
            connect_timeout=ANSWER, read_timeout=ANSWER, retries={"total_max_attempts": 1}
        )
        try:
            self.client: Any = boto3.client(self.service, region_name=self.region, config=config)
        except BotoCoreError as error:
            raise UserError(
                f"{self} cannot be used ({_reason(error)}): correct the configuration of AWS's "
                "tools."
            ) from None

    @abstractmethod
    def call(self, request: Any) -> Answer:
        """Send what `body` returned, once; errors of boto3 may be raised."""

    def send(self, body: bytes, key: str, stop: threading.Event) -> Answer:
        """Send what `body` returned, once."""
        request = msgspec.json.decode(body)
        return in_time(lambda: self._answer(request), stop)

    def _answer(self, request: Any) -> Answer:
        from botocore import exceptions

        try:
            return self.call(request)
        except exceptions.ClientError as error:
            return refusal(error.response.get("Error", {}).get("Code", "an error"), self.right)
        except exceptions.SSLError as error:
            return Answer(None, wrong_aws_certificate(error))
        except (exceptions.HTTPClientError, exceptions.ConnectionError):
            return Answer(None, "AWS does not answer")
        except exceptions.BotoCoreError as error:
            return Answer(None, f"{_reason(error)}: configure AWS credentials")

    def __repr__(self) -> str:
        """Return the name of the target, and of the topic or bus and its region."""
        name = self.address.rpartition(":")[2].rpartition("/")[2]
        return f"{self.name} at {name} in {self.address.split(':')[3]}"


def refusal(code: str, right: str) -> Answer:
    """Return what an error of AWS means: rejected for its content, or to be tried again.

    >>> refusal("MalformedDetail", "events:PutEvents").rejected
    True
    >>> refusal("AuthorizationError", "sns:Publish").reason
    'AWS answers AuthorizationError: check the ARN, the credentials and their right sns:Publish'
    """
    if code in WRONG_RECORD:
        return Answer(400, f"AWS answers {code}")
    if code in BUSY:
        return Answer(None, f"AWS answers {code}")
    return Answer(
        None, f"AWS answers {code}: check the ARN, the credentials and their right {right}"
    )


def _reason(error: Exception) -> str:
    return str(error).rstrip(".")
