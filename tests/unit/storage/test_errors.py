# SPDX-License-Identifier: Apache-2.0
import pytest

from r1reward_trainer.storage.errors import Kind, classify_answer


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", Kind.ABSENT),
        (404, "", Kind.ABSENT),
        (404, "NoSuchBucket", Kind.DENIED),
        (403, "AccessDenied", Kind.DENIED),
        (403, "InvalidAccessKeyId", Kind.DENIED),
        (403, "SignatureDoesNotMatch", Kind.DENIED),
        (403, "XAdminUserNotFound", Kind.DENIED),
        (400, "AuthorizationHeaderMalformed", Kind.DENIED),
        (403, "RequestTimeTooSkewed", Kind.TRANSIENT),
        (412, "PreconditionFailed", Kind.PRECONDITION),
        (412, "", Kind.PRECONDITION),
        (409, "ConditionalRequestConflict", Kind.TRANSIENT),
        (429, "TooManyRequests", Kind.TRANSIENT),
        (500, "InternalError", Kind.TRANSIENT),
        (503, "SlowDown", Kind.TRANSIENT),
        (502, "", Kind.TRANSIENT),
        (507, "XMinioStorageFull", Kind.FULL),
        (507, "InsufficientStorage", Kind.FULL),
        (403, "QuotaExceeded", Kind.FULL),
        (501, "NotImplemented", Kind.UNSUPPORTED),
    ],
)
def test_an_answer_means_the_same_whatever_client_got_it(status: int, code: str, kind: Kind):
    assert classify_answer(status, code) is kind
