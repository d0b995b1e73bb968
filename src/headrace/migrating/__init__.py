"""Moving a project from Django Channels to Headrace: ``headrace migrate-imports``.

``python`` reads one module and says what to change in it, ``others`` does so for files that
name packages and commands, ``project`` walks a folder and writes, ``command`` is what the
shell sees. Only ``python`` needs libcst, which comes with ``headrace[migrate]``.
"""
