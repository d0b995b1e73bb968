"""``{% words %}``: the address of what the scripts say, in the reader's language."""

from django import template
from django.utils.translation import get_language

from millpond.words import address

__all__ = ["words"]

register = template.Library()


@register.simple_tag
def words():
    return address(get_language())
