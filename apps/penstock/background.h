#pragma once
// A program that goes on in the background once it is ready.

namespace penstock {

// The constructor forks. The child returns from it: in a session of its own, so that no terminal ends it, with nothing on stdin, and with the
// parent's stdout and stderr, which whoever started the program may be reading. The parent does not return: it waits for the child's word.
//
// REQUIRES: no other thread runs, and nothing is buffered for stdout.
class Background {
 public:
  Background();
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // The parent ends now, with exit code 0. Without this it ends when the child does, with the child's exit code.
  void tell_ready();

 private:
  int ready_ = -1;  // the pipe's end on which the parent waits
};

}  // namespace penstock
