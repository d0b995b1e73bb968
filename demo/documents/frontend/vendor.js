// What the documents take of other people's libraries, in one file without anything of our own: the
// page's scripts are served as they are written, and import this.

export { defaultKeymap } from "@codemirror/commands";
export { markdown } from "@codemirror/lang-markdown";
export { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
export { EditorState } from "@codemirror/state";
export { EditorView, highlightSpecialChars, keymap, placeholder } from "@codemirror/view";
export { tags } from "@lezer/highlight";
export { yCollab, yUndoManagerKeymap } from "y-codemirror.next";
export { Awareness } from "y-protocols/awareness";
export { WebsocketProvider } from "y-websocket";
export * as Y from "yjs";
