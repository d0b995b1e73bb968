"""A few documents that are begun."""

from pycrdt import Doc, Text

from documents.models import TEXT, Document, Role

__all__ = ["seed"]

DOCUMENTS = (
    # (owner, title, everyone, shares, text)
    (
        "maya",
        "The summer fair",
        Role.EDITOR,
        {},
        """# The summer fair

Everyone may write here. Open this page in a second browser as somebody else, and do it together.

## Who brings what

- Maya: the long tables, and the lanterns from last year
- Jonas: soup, in the big pot
- Wen: plums. *Many* plums
-

## Still open

1. Does the boat count as a stage?
2. Who asks the neighbours?
3. What if it rains?
""",
    ),
    (
        "edith",
        "House rules",
        Role.VIEWER,
        {"jonas": Role.EDITOR},
        """# House rules

Everyone may read this; Edith and Jonas may change it.

1. The pond is for looking at.
2. Who finishes the coffee makes the next one.
3. A lamp that flickers is told to somebody, and not to the lamp.
""",
    ),
    (
        "priya",
        "Letter to the ferry company",
        "",
        {"maya": Role.EDITOR, "tomas": Role.VIEWER},
        """Dear ferry company,

we write to you about the 7:40. It is a fine boat. It leaves at 7:35.
""",
    ),
)


def seed(people):
    """Begin what isn't there; what is stays as it is."""
    if Document.objects.exists():
        return f"{Document.objects.count()} documents (0 new)"
    for owner, title, everyone, shares, text in DOCUMENTS:
        content = Doc({TEXT: Text(text)}, allow_multithreading=True).get_update()
        document = Document.objects.create(
            title=title,
            owner=people[owner],
            everyone=everyone,
            snapshot=content,
            snapshot_number=1,
            last_number=1,
            size=len(content),
        )
        for name, role in shares.items():
            document.shares.create(user=people[name], role=role)
    return f"{len(DOCUMENTS)} documents"
