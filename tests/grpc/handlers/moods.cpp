// A native handler in every mood: the part or body says which.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

#include "handler/native_handler.h"

namespace {

class Moods final : public penstock::native::Handler {
 public:
  explicit Moods(const penstock::native::Model& model) : name_(model.name), folder_(model.folder), max_concurrent_(model.max_concurrent) {
    if (name_ == "unloadable") throw std::runtime_error("weights.bin is not there");
  }

  void handle(const penstock::native::Request& request, penstock::native::Answer& answer) override {
    const std::string mood(request.num_parts() > 0 ? request.part(0).bytes : "");
    answer.set_content_type("text/mood");
    if (mood == "who") return answer.finish(name_ + " in " + folder_ + " times " + std::to_string(max_concurrent_));
    if (mood == "crash") std::abort();
    if (mood == "throw") throw std::runtime_error("a bad mood");
    if (mood == "silent") return;
    if (mood == "refuse") {
      answer.set_status(422);
      answer.add_header("X-Mood", "bad");
      return answer.finish("no");
    }
    if (mood == "throw late") {
      answer.send("begun ");
      throw std::runtime_error("a bad mood");
    }
    if (mood == "endless") {
      while (!request.cancelled() && answer.send("more ")) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      std::fprintf(stderr, "endless request %s was cancelled\n", std::string(request.id()).c_str());
      return;
    }
    answer.finish(mood);
    answer.finish("this is too late");
  }

 private:
  const std::string name_, folder_;
  const int max_concurrent_;
};

}  // namespace

PENSTOCK_HANDLER(Moods)
