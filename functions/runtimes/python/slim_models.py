"""Makes botocore's descriptions of AWS's services small: without texts, packed one by one.

    python3 slim_models.py <botocore/data>

botocore reads .json.gz as it reads .json. A description without texts is read faster; what help() prints of a client's
methods is shorter for it. The same input makes the same files.
"""

import gzip
import json
import os
import sys


def without_texts(node):
    """The description without its texts. A member of a structure may be called documentation too: it is no text."""
    if isinstance(node, dict):
        # Some of them botocore wants to be there.
        return {k: "" if k == "documentation" and isinstance(v, str) else without_texts(v) for k, v in node.items()}
    if isinstance(node, list):
        return [without_texts(v) for v in node]
    return node


def main():
    for folder, _, names in os.walk(sys.argv[1]):
        for name in names:
            path = os.path.join(folder, name)
            if name.startswith("examples-"):
                os.remove(path)  # examples of the documentation
                continue
            if not name.endswith(".json") or folder == sys.argv[1]:
                continue  # those of all services are read with each client
            with open(path, "rb") as f:
                content = f.read()
            if name.startswith("service-"):
                content = json.dumps(without_texts(json.loads(content)), separators=(",", ":")).encode()
            with open(path + ".gz", "wb") as f, gzip.GzipFile("", "wb", 9, f, 0) as packed:
                packed.write(content)
            os.remove(path)


main()
