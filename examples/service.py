"""Embed images in an app with many threads: one thread owns the model and computes in batches."""

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from mlx_aimv2 import Embedder, load, sample_images


class EmbeddingService:
    """A context manager whose ``embed`` any thread may call; all images that wait become one batch."""

    def __init__(self, model="demo", batch_size=16):
        self.model, self.batch_size, self.waiting = model, batch_size, queue.Queue()
        self.owner, self.lock = ThreadPoolExecutor(1), threading.Lock()

    def __enter__(self):
        loading = self.owner.submit(lambda: Embedder(*load(self.model)))
        if loading.exception():
            self.__exit__()
        self.embedder = loading.result()
        return self

    def __exit__(self, *_):
        with self.lock:
            self.owner.shutdown(wait=False)  # from here on embed() raises
        self.owner.shutdown()

    def embed(self, image):
        """The future of an image's vector or error; raises RuntimeError after the `with` block."""
        with self.lock:
            self.waiting.put((image, future := Future()))
            self.owner.submit(self._compute)
        return future

    def _compute(self):
        """Compute all images that wait as one batch; there are none if an earlier call took them all."""
        jobs = [self.waiting.get() for _ in range(min(self.batch_size, self.waiting.qsize()))]
        jobs = [job for job in jobs if job[1].set_running_or_notify_cancel()]
        try:
            for item in self.embedder.stream([image for image, _ in jobs]):
                future = jobs[item.index][1]
                future.set_exception(item.error) if item.error else future.set_result(item.vector)
        except Exception as error:  # noqa: BLE001 - the batch failed, the next may not
            for _, future in jobs:
                if not future.done():
                    future.set_exception(error)


images = [sample.open() for sample in sample_images()] * 4
with EmbeddingService() as service, ThreadPoolExecutor(8) as clients:
    vectors = list(clients.map(lambda image: service.embed(image).result(), images))
    print(f"{len(vectors)} vectors of {len(vectors[0])} numbers, for 8 threads")
    print("a broken image:", service.embed(b"no image").exception())
