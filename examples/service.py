"""Vectors for an app with many threads: one thread owns the model, the others hand it pictures through a queue.

MLX's streams belong to threads, so one thread loads the model and runs it, and takes what waits as one batch.
"""

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from mlx_aimv2 import Embedder, load
from mlx_aimv2.demo.examples import shown_examples


class EmbeddingService:
    """Give it pictures from any thread; it gives futures of their vectors."""

    def __init__(self, model="demo", most=16):
        """Load the model, or raise why not; at most so many pictures are computed at once."""
        self.model, self.most, self.waiting, ready = model, most, queue.Queue(), Future()
        self.thread = threading.Thread(target=self._work, args=[ready])
        self.thread.start()
        ready.result()

    def embed(self, picture):
        """The future of a picture's vector, or of the reason why there is none."""
        self.waiting.put((picture, future := Future()))
        return future

    def close(self):
        """Finish what is waiting, and end."""
        self.waiting.put(None)
        self.thread.join()

    def _work(self, ready):
        import mlx.core as mx  # after mlx_aimv2, which has looked for a fast BLAS

        try:
            embedder, jobs = Embedder(*load(self.model)), []
        except Exception as error:  # noqa: BLE001 - it is raised where the service is made
            return ready.set_exception(error)
        ready.set_result(None)
        while None not in jobs:
            jobs = [self.waiting.get()]
            while jobs[-1] and len(jobs) < self.most and not self.waiting.empty():
                jobs.append(self.waiting.get())  # what waits behind it; None, the end, is the last
            for item in embedder.stream([job[0] for job in jobs if job]):
                future = jobs[item.index][1]
                future.set_exception(item.error) if item.error else future.set_result(item.vector)
        mx.clear_streams()  # this thread's: left to the end of the process, they can crash it


service = EmbeddingService()
pictures = [example.picture(224) for example in shown_examples(40)]
with ThreadPoolExecutor(8) as clients:
    vectors = list(clients.map(lambda picture: service.embed(picture).result(), pictures))
print(f"{len(vectors)} vectors of {len(vectors[0])} numbers, asked for by 8 threads")
print("a broken picture:", service.embed(b"no picture").exception())
service.close()
