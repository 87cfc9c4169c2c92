from tiphys.runtime.images import ImageStore
from tiphys.runtime.interface import ImageAuth


def pull(store: ImageStore, reference: str, auth: ImageAuth | None) -> str:
    raise NotImplementedError
