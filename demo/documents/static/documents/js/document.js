// The page of a document: the editor, who else is in it, and what became of what one wrote.

import { showConnection } from "../../live/live.js";
import { render } from "../../live/template.js";
import {
  Awareness,
  EditorState,
  EditorView,
  HighlightStyle,
  Y,
  defaultKeymap,
  highlightSpecialChars,
  keymap,
  markdown,
  placeholder,
  syntaxHighlighting,
  tags,
  yCollab,
  yUndoManagerKeymap,
} from "../vendor/editor.js";
import { Connection, connect } from "./provider.js";

const page = document.querySelector("main.document");
const mayEdit = page.dataset.mayEdit === "yes";
const doc = new Y.Doc();
const text = doc.getText("content");
const awareness = new Awareness(doc);
const undoing = new Y.UndoManager(text); // of what is written here, and not of what others write
const provider = connect(page.dataset.document, doc, awareness);
const connection = new Connection(provider);
showConnection(connection);

// --- The editor ---

const STYLE = HighlightStyle.define([
  { tag: tags.heading1, class: "md-heading md-title" },
  { tag: tags.heading, class: "md-heading" },
  { tag: tags.strong, class: "md-strong" },
  { tag: tags.emphasis, class: "md-emphasis" },
  { tag: [tags.link, tags.url], class: "md-link" },
  { tag: tags.monospace, class: "md-code" },
  { tag: tags.quote, class: "md-quote" },
  { tag: tags.processingInstruction, class: "md-mark" },
]);

const view = new EditorView({
  parent: page.querySelector(".editor"),
  state: EditorState.create({
    doc: text.toString(),
    extensions: [
      EditorView.cspNonce.of(page.dataset.nonce),
      EditorView.lineWrapping,
      EditorView.contentAttributes.of({
        "aria-labelledby": "document-title",
        "aria-describedby": "document-help",
        "aria-readonly": String(!mayEdit),
        spellcheck: "true",
        autocorrect: "on",
        autocapitalize: "sentences",
        tabindex: "0",
      }),
      EditorState.readOnly.of(!mayEdit),
      EditorView.editable.of(mayEdit),
      highlightSpecialChars(),
      placeholder(mayEdit ? gettext("Write something.") : gettext("Nobody has written anything yet.")),
      markdown(),
      syntaxHighlighting(STYLE),
      keymap.of([...yUndoManagerKeymap, ...defaultKeymap]),
      yCollab(text, awareness, { undoManager: undoing }),
    ],
  }),
});

for (const [name, can, act] of [
  ["undo", () => undoing.canUndo(), () => undoing.undo()],
  ["redo", () => undoing.canRedo(), () => undoing.redo()],
]) {
  const button = page.querySelector(`[data-${name}]`);
  if (!button) continue; // for who may not write there is nothing to undo
  const show = () => button.setAttribute("aria-disabled", String(!can()));
  for (const event of ["stack-item-added", "stack-item-popped", "stack-cleared"]) undoing.on(event, show);
  button.addEventListener("click", () => {
    if (can()) act();
    view.focus();
  });
  show();
}

// --- What became of it ---

const fate = page.querySelector("#fate");
const words = page.querySelector("#words");
let isUnsent = false;
let isDenied = false;

function showFate() {
  const told = isDenied
    ? gettext("The server does not take what you wrote: you may only read this document.")
    : isUnsent
      ? gettext("What you write now stays on this page, and is merged when the connection is back.")
      : "";
  if (fate.textContent !== told) fate.textContent = told; // else it is read out again
}

function showWords() {
  const count = text.toString().match(/[\p{Script=Han}]|[\p{L}\p{N}’'-]+/gu)?.length ?? 0;
  words.textContent = interpolate(ngettext("%s word", "%s words", count), [count]);
}

doc.on("update", (_update, origin) => {
  if (origin !== provider && !provider.synced) isUnsent = true;
  showFate();
  showWords();
});
provider.on("sync", (isSynced) => {
  if (isSynced) isUnsent = false;
  showFate();
});
connection.onDenied(() => {
  isDenied = true;
  showFate();
});
addEventListener("beforeunload", (event) => {
  if (isUnsent) event.preventDefault();
});
showWords();

// --- Who is here ---

const people = page.querySelector(".people");

// To the others one was gone: a state is new to them only by a later clock.
provider.on("status", ({ status }) => {
  if (status === "connected") awareness.setLocalState(awareness.getLocalState());
});

function showPeople() {
  const here = new Map(); // each once, in however many tabs
  for (const { user } of awareness.getStates().values()) {
    if (user && user.id !== Number(page.dataset.you)) here.set(user.id, user);
  }
  const others = [...here.values()].sort((one, other) => one.name.localeCompare(other.name));
  people.replaceChildren(
    ...others.map((user) => {
      const person = render("person", {
        name: user.name,
        reads: user.reads ? gettext("reads along") : "",
        initials: user.name.split(/\s+/, 2).map((word) => [...word][0]).join("").toUpperCase(),
      });
      person.querySelector(".avatar").dataset.color = user.tint;
      return person;
    }),
  );
}
awareness.on("change", showPeople);
showPeople();
