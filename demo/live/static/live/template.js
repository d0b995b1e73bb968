// Markup comes from the <template>s of the page, text goes in as text: nothing that a user wrote
// is ever parsed as HTML.

export function render(templateId, slots) {
  const node = document.getElementById(templateId).content.firstElementChild.cloneNode(true);
  fill(node, slots);
  return node;
}

export function fill(node, slots) {
  for (const [name, text] of Object.entries(slots)) {
    const slot = node.querySelector(`[data-slot=${name}]`);
    if (slot) slot.textContent = text;
  }
}
