"""Large pictures: one at a time, and nothing else waits for them."""

import base64
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from odd_content import picture
from serve_util import serving, shared_out

from index.service import images
from index.service.app import create_app
from index.service.settings import Refused
from mmfilter.images import ImageLimits, decode

pytestmark = pytest.mark.slow  # together, not each


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch):
    from index.service import decoding

    working, most = [], []

    def slow(data, limits):
        working.append(1)
        most.append(len(working))
        time.sleep(0.05)
        working.pop()
        return decode(data, limits)

    monkeypatch.setattr(decoding, "decode", slow)
    for size, expected in (((2048, 2048), 1), ((64, 64), 4)):
        most.clear()
        data = picture("L", "PNG", size, compress_level=1)
        with ThreadPoolExecutor(4) as several:
            list(several.map(lambda _, data=data: images._small(data, ImageLimits(), 64), range(4)))
        assert max(most) == expected
    with pytest.raises(Refused, match="cannot be shown"):
        images._small(b"x", ImageLimits(), 64)


def test_a_search_by_words_does_not_wait_for_a_picture(tmp_path_factory, monkeypatch):
    from index.service import decoding

    begun, done = threading.Event(), threading.Event()

    def endless(data, limits):
        begun.set()
        done.wait(20)
        return decode(data, limits)

    monkeypatch.setattr(decoding, "decode", endless)
    body = {"image": base64.b64encode(picture("RGB", "PNG")).decode(), "k": 1}
    with serving(create_app([str(shared_out(tmp_path_factory))])) as url, ThreadPoolExecutor(1) as other:
        late = other.submit(httpx.post, f"{url}/api/search", json=body, timeout=30)
        try:
            assert begun.wait(10)
            assert httpx.post(f"{url}/api/search", json={"text": "red", "k": 1}, timeout=10).status_code == 200
            assert not late.done()
        finally:
            done.set()
        assert late.result().status_code == 200
