// Which lane a comment flies in: pure functions, without a page and without a clock.
//
// All comments fly at one speed. Two in one lane touch if, and only if, the second enters before the
// first is in with all its length: so each of them holds the entrance of its lane for a `span` of
// milliseconds from its moment `at`. The film is a loop, and so these spans lie on a circle.
//
// Of `lanes` (a list of comments for each) the last one is kept for one's own comments.

export function touch(one, other, loop) {
  const later = (((other.at - one.at) % loop) + loop) % loop;
  return later < one.span || loop - later < other.span;
}

function isFree(lane, comment, loop) {
  return lane.every((other) => !touch(other, comment, loop));
}

// Returns the number of the lane and the comments that have to leave it, or null: all lanes are full
// at that moment, and the comment doesn't fly. One's own always does: if need be instead of others.
export function placeFor(lanes, comment, loop) {
  const open = comment.own ? lanes : lanes.slice(0, -1);
  const free = open.findIndex((lane) => isFree(lane, comment, loop));
  if (free >= 0) return { lane: free, leaving: [] };
  if (!comment.own) return null;
  for (const [lane, others] of lanes.entries()) {
    const leaving = others.filter((other) => touch(other, comment, loop));
    if (leaving.every((other) => !other.own)) return { lane, leaving };
  }
  // One's own fill all lanes at this moment: the last one, over the others.
  return { lane: lanes.length - 1, leaving: [] };
}
