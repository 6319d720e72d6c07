#include "comm/shaped_link.h"

#include <ATen/core/Tensor.h>

#include <deque>
#include <functional>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/mutex.h"

namespace penstock::comm {
namespace {

// A send that may not have left yet. Shared by the caller's Work and the link's thread.
class Departure {
 public:
  void leave(WorkPtr work) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    work_ = std::move(work);
    changed_.notify_all();
  }
  void fail(const Error& error) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    failed_ = error;
    changed_.notify_all();
  }

  void wait(Deadline deadline) EXCLUDES(mutex_) {
    std::shared_ptr<Work> work;
    {
      MutexLock lock(mutex_);
      while (!work_ && !failed_) {
        if (!changed_.wait(mutex_, deadline) && !work_ && !failed_) {
          throw error(Code::kDeadlineExceeded, "a message on an emulated link did not leave before the deadline");
        }
      }
      if (failed_) throw *failed_;
      work = work_;
    }
    work->wait(deadline);
  }

  [[nodiscard]] bool done() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return failed_ || (work_ && work_->done());
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<Work> work_ GUARDED_BY(mutex_);
  std::optional<Error> failed_ GUARDED_BY(mutex_);
};

class DepartureWork : public Work {
 public:
  explicit DepartureWork(std::shared_ptr<Departure> departure) : departure_(std::move(departure)) {}
  void wait(Deadline deadline) override { departure_->wait(deadline); }
  bool done() override { return departure_->done(); }

 private:
  std::shared_ptr<Departure> departure_;
};

class ShapedLink : public Communicator {
 public:
  ShapedLink(Communicator& inner, const LinkShape& shape) : inner_(inner), shape_(shape), thread_([this] { run(); }) {}
  ShapedLink(std::unique_ptr<Communicator> owned, const LinkShape& shape)
      : owned_(std::move(owned)), inner_(*owned_), shape_(shape), thread_([this] { run(); }) {}

  ~ShapedLink() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }
  ShapedLink(const ShapedLink&) = delete;
  ShapedLink& operator=(const ShapedLink&) = delete;

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const std::string& name() const override { return inner_.name(); }

  WorkPtr send(const Tensor& tensor, int to, int tag) override {
    return hold_back(1, static_cast<double>(tensor.nbytes()), [this, tensor, to, tag] { return inner_.send(tensor, to, tag); });
  }

  WorkPtr recv(Tensor& tensor, int from, int tag) override { return inner_.recv(tensor, from, tag); }

  WorkPtr all_reduce(Tensor& tensor, Reduce op) override {
    const int messages = 2 * (size() - 1);
    if (messages == 0) return inner_.all_reduce(tensor, op);
    return hold_back(messages, messages * static_cast<double>(tensor.nbytes()) / size(), [this, tensor, op]() mutable { return inner_.all_reduce(tensor, op); });
  }

  WorkPtr all_reduce_rounded(Tensor& tensor, Tensor& residual) override {
    const int messages = 2 * (size() - 1);
    if (messages == 0) return inner_.all_reduce_rounded(tensor, residual);
    return hold_back(messages, messages * static_cast<double>(tensor.nbytes()) / 2 / size(),
                     [this, tensor, residual]() mutable { return inner_.all_reduce_rounded(tensor, residual); });
  }

  WorkPtr broadcast(Tensor& tensor, int root) override {
    return hold_back(1, static_cast<double>(tensor.nbytes()), [this, tensor, root]() mutable { return inner_.broadcast(tensor, root); });
  }

  // Each other rank's part goes to that rank ...
  WorkPtr reduce_scatter(Tensor& flat, std::span<const int64_t> offsets) override {
    const int64_t sent = flat.numel() - own_part(offsets);
    if (sent == 0) return inner_.reduce_scatter(flat, offsets);
    return hold_back(size() - 1, static_cast<double>(sent * static_cast<int64_t>(flat.element_size())),
                     [this, flat, parts = copy(offsets)]() mutable { return inner_.reduce_scatter(flat, parts); });
  }
  // ... and this rank's part to every other.
  WorkPtr all_gather(Tensor& flat, std::span<const int64_t> offsets) override {
    if (size() == 1) return inner_.all_gather(flat, offsets);
    const int64_t sent = own_part(offsets) * (size() - 1);
    return hold_back(size() - 1, static_cast<double>(sent * static_cast<int64_t>(flat.element_size())),
                     [this, flat, parts = copy(offsets)]() mutable { return inner_.all_gather(flat, parts); });
  }

  WorkPtr barrier() override { return inner_.barrier(); }
  int64_t bytes_sent() const override { return inner_.bytes_sent(); }
  Tensor reduction_buffer(int64_t bytes, Deadline deadline) override { return inner_.reduction_buffer(bytes, deadline); }

  std::unique_ptr<Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    auto group = inner_.split(ranks, name, deadline);
    if (!group) return nullptr;
    return std::make_unique<ShapedLink>(std::move(group), shape_);
  }

 private:
  struct Message {
    Clock::time_point arrives;
    std::function<WorkPtr()> post;
    std::shared_ptr<Departure> departure;
  };

  static std::vector<int64_t> copy(std::span<const int64_t> offsets) { return {offsets.begin(), offsets.end()}; }
  [[nodiscard]] int64_t own_part(std::span<const int64_t> offsets) const {
    PENSTOCK_CHECK(offsets.size() == static_cast<size_t>(size()) + 1, "{} offsets of parts for {} ranks", offsets.size(), size());
    return offsets[static_cast<size_t>(rank()) + 1] - offsets[static_cast<size_t>(rank())];
  }

  WorkPtr hold_back(int messages, double bytes, std::function<WorkPtr()> post) EXCLUDES(mutex_) {
    const auto departure = std::make_shared<Departure>();
    MutexLock lock(mutex_);
    const double transfer = shape_.bytes_per_second > 0 ? bytes / shape_.bytes_per_second : 0;
    free_at_ = std::max(free_at_, Clock::now()) + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(transfer));
    queue_.push_back({free_at_ + messages * shape_.latency, std::move(post), departure});
    changed_.notify_all();
    return std::make_unique<DepartureWork>(departure);
  }

  // Messages arrive in the order in which they were sent.
  void run() EXCLUDES(mutex_) {
    while (true) {
      std::optional<Message> message;
      {
        MutexLock lock(mutex_);
        while (!stopping_ && (queue_.empty() || queue_.front().arrives > Clock::now())) {
          changed_.wait(mutex_, queue_.empty() ? Deadline::never() : Deadline::at(queue_.front().arrives));
        }
        if (stopping_) break;
        message = std::move(queue_.front());
        queue_.pop_front();
      }
      deliver(*message);
    }
    MutexLock lock(mutex_);
    for (const Message& left : queue_) left.departure->fail(error(Code::kCancelled, "the emulated link of {} was closed", inner_.name()));
  }

  void deliver(const Message& message) {
    try {
      message.departure->leave(message.post());
    } catch (const Error& failed) {
      message.departure->fail(failed);
    }
  }

  const std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
  const LinkShape shape_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Message> queue_ GUARDED_BY(mutex_);
  Clock::time_point free_at_ GUARDED_BY(mutex_){};
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace

std::unique_ptr<Communicator> make_shaped_link(Communicator& inner, const LinkShape& shape) { return std::make_unique<ShapedLink>(inner, shape); }

std::unique_ptr<Communicator> make_shaped_link(std::unique_ptr<Communicator> inner, const LinkShape& shape) {
  return std::make_unique<ShapedLink>(std::move(inner), shape);
}

}  // namespace penstock::comm
