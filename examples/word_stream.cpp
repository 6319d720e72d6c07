// A native handler that streams: it sends the words of its input back one by one, with a pause after each, as a model would that makes them.
//
// Build it alone:   c++ -std=c++20 -shared -fPIC -I PREFIX/include/penstock word_stream.cpp -o word_stream.so
// Serve it:         put it into a folder, with a model-config.yaml that says
//                     handler: {name: word_stream.so, max_concurrent: 4}
//                   then: penstock serve --models words=FOLDER
// Ask it:           curl -N -X POST http://127.0.0.1:8080/predictions/words -d 'one word after the other'
#include <chrono>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>

#include "handler/native_handler.h"

namespace {

constexpr std::chrono::milliseconds kPause{20};

class WordStream final : public penstock::native::Handler {
 public:
  // A real handler would load the files of model.folder here, and throw what keeps it from that.
  explicit WordStream(const penstock::native::Model&) {}

  void handle(const penstock::native::Request& request, penstock::native::Answer& answer) override {
    answer.set_content_type("text/plain; charset=utf-8");
    if (request.num_parts() == 0) {
      answer.set_status(400);
      return answer.finish("there is no input; send a text");
    }
    std::istringstream text{std::string(request.part(0).bytes)};
    for (std::string word; text >> word;) {
      // Nobody waits any more: stop, so that the next client gets this thread.
      if (request.cancelled() || !answer.send(word + " ")) return;
      std::this_thread::sleep_for(kPause);
    }
    answer.finish("");
  }
};

}  // namespace

PENSTOCK_HANDLER(WordStream)
