"""Vectors for an app with many threads: one of them computes, and takes what waits as one batch."""

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from mlx_aimv2 import Embedder, load
from mlx_aimv2.demo.examples import shown_examples


class EmbeddingService:
    """Inside its `with`, give it images from any thread; it gives futures of vectors, computed in batches."""

    def __init__(self, model="demo", most=16):
        self.model, self.most, self.waiting = model, most, queue.Queue()
        self.owner, self.lock = ThreadPoolExecutor(1), threading.Lock()

    def __enter__(self):
        loading = self.owner.submit(lambda: Embedder(*load(self.model)))
        if loading.exception():
            self.__exit__()
        self.embedder = loading.result()
        return self

    def __exit__(self, *_):
        with self.lock:
            self.owner.shutdown(wait=False)  # from here on nothing is taken
        self.owner.shutdown()

    def embed(self, image):
        """The future of an image's vector, or of the reason why there is none; raises when the `with` has ended."""
        with self.lock:
            self.waiting.put((image, future := Future()))
            self.owner.submit(self._compute)
        return future

    def _compute(self):
        """What waits, as one batch; often an earlier call has taken it all."""
        jobs = [self.waiting.get() for _ in range(min(self.most, self.waiting.qsize()))]
        jobs = [job for job in jobs if job[1].set_running_or_notify_cancel()]
        try:
            for item in self.embedder.stream([image for image, _ in jobs]):
                future = jobs[item.index][1]
                future.set_exception(item.error) if item.error else future.set_result(item.vector)
        except Exception as error:  # noqa: BLE001 - that of the batch, and the next may be fine
            for _, future in jobs:
                if not future.done():
                    future.set_exception(error)


images = [example.image(224) for example in shown_examples(40)]
with EmbeddingService() as service, ThreadPoolExecutor(8) as clients:
    vectors = list(clients.map(lambda image: service.embed(image).result(), images))
    print(f"{len(vectors)} vectors of {len(vectors[0])} numbers, asked for by 8 threads")
    print("a broken image:", service.embed(b"no image").exception())
