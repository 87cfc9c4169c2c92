"""Long lists come in pages that belong together.

Spec: upstream's test "Servers with support for API chunking should return chunks of results for list calls". Pages of a
revision that is compacted away are tried in tests/unit/apiserver/test_reads.py: here that would take minutes.
"""

from __future__ import annotations

from typing import Any

from direct_api import Api

TOTAL = 40


def test_pages_belong_together(api: Api, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/podtemplates"
    template = {"spec": {"containers": [{"name": "test", "image": "test"}]}}
    for number in range(TOTAL):
        name = {"name": f"template-{number:04}"}
        api.create(path, {"apiVersion": "v1", "kind": "PodTemplate", "metadata": name, "template": template})
    for limit in (1 + TOTAL // 7, TOTAL - 1, TOTAL, TOTAL + 1):
        seen, token, revision = 0, "", ""
        while True:
            query: dict[str, Any] = {"limit": limit} | ({"continue": token} if token else {})
            page = api.get(path, **query)
            assert len(page["items"]) <= limit
            revision = revision or page["metadata"]["resourceVersion"]
            assert page["metadata"]["resourceVersion"] == revision
            for item in page["items"]:
                assert item["metadata"]["name"] == f"template-{seen:04}"
                seen += 1
            token = page["metadata"].get("continue", "")
            remaining = page["metadata"].get("remainingItemCount", 0)
            assert remaining + seen == TOTAL
            if not token:
                assert "remainingItemCount" not in page["metadata"]
                break
            assert remaining
        assert seen == TOTAL
    whole = api.get(path)
    assert len(whole["items"]) == TOTAL
    assert "continue" not in whole["metadata"]
    assert "remainingItemCount" not in whole["metadata"]
