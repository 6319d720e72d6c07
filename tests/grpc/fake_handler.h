#pragma once
// A handler without a model: it answers with what it was given.
#include <map>
#include <memory>

#include "base/mutex.h"
#include "handler/handler.h"

namespace penstock::tests {

// Answers "name [content type] bytes\n" for each part, sorted by name, as text/plain, with the request's id in the header x-known-id. The header x-rule, or a part named
// "rule", changes that:
//   pieces       one message for each part, and an empty last one        headers  the request's headers, "name: value\n" each
//   hang         one message, then nothing until it is cancelled          crash    the process aborts
//   status CODE  the answer with that status                              fail     no answer, but an INTERNAL error
//   break        one message, then an INTERNAL error                      head     headers that try to break the protocol
//
// Threads: as handler::Handler; answers come from within submit().
class FakeHandler final : public handler::Handler {
 public:
  [[nodiscard]] handler::HandlerInfo info() const override { return {"fake", 8}; }
  [[nodiscard]] Result<handler::RequestId> submit(handler::Request request, std::shared_ptr<handler::AnswerSink> sink) override EXCLUDES(mutex_);
  void cancel(handler::RequestId id) override EXCLUDES(mutex_);
  void drain() override {}

 private:
  Mutex mutex_;
  handler::RequestId next_id_ GUARDED_BY(mutex_) = 1;
  std::map<handler::RequestId, std::shared_ptr<handler::AnswerSink>> hanging_ GUARDED_BY(mutex_);
};

}  // namespace penstock::tests
