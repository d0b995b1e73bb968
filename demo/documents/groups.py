"""The groups of the channel layer.

===========================  ==================================================================
``documents.<id>``           every page that shows the document, and the replica of each process
``documents.<id>.replicas``  the replicas alone
===========================  ==================================================================
"""

__all__ = ["document_group", "replicas_group"]


def document_group(document_id: int) -> str:
    return f"documents.{document_id}"


def replicas_group(document_id: int) -> str:
    return f"documents.{document_id}.replicas"
