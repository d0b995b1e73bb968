// What the server refuses, in the reader's language: by the code of its answer.

const { gettext: _, interpolate } = window;

const WORDS = {
  empty: () => _("Write something first."),
  too_long: ({ most, length }) =>
    interpolate(_("A message has at most %s characters; this one has %s."), [
      most.toLocaleString(),
      length.toLocaleString(),
    ]),
  rate: ({ retry_after_s }) =>
    retry_after_s > 30
      ? _("Those were many images. Wait a minute.")
      : _("You write faster than anyone can read."),
  closed: () => _("This room is closed."),
  muted: () => _("You are muted here for a while."),
  not_yours: () => _("Only who wrote a message may change it."),
  deleted: () => _("This message was deleted."),
  no_such_message: () => _("There is no such message."),
  not_staff: () => _("Only staff may do this, and in public rooms only."),
  staff: () => _("Staff can't be muted."),
  no_image: () => _("This is no image: PNG, JPEG, WebP and GIF are."),
  too_large: () => _("This image is too large."),
  unavailable: () => _("This can't be done just now."),
};

export const NO_CONNECTION = _("There is no connection just now. Try again in a moment.");

export function wordsFor(refusal) {
  return WORDS[refusal.code]?.(refusal) ?? refusal.text;
}

export function tooLongBy(over) {
  return interpolate(
    window.ngettext(
      "Too long by %s character. Please shorten it.",
      "Too long by %s characters. Please shorten it.",
      over,
    ),
    [over],
  );
}

// As the server counts: characters, where JavaScript's length counts halves of some.
export const lengthOf = (text) => [...text].length;
