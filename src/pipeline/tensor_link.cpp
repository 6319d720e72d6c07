#include "pipeline/tensor_link.h"

#include <algorithm>

#include "base/error.h"

namespace penstock::pipeline {
namespace {

enum class Part : int { kHeader = 0, kActivation = 1, kGradient = 2 };

int tag_of(int key, Part part) { return 16 + 3 * key + static_cast<int>(part); }  // below 16: messages of others on the same group

constexpr int64_t kFieldsPerTensor = 3 + TensorLink::kMaxDims;  // dtype, wants gradient, number of dims, dims
constexpr int64_t kHeaderSize = 1 + TensorLink::kMaxTensors * kFieldsPerTensor;

// What the communicator sends of a contiguous tensor: itself, or its bytes.
at::Tensor on_the_wire(const at::Tensor& t) {
  switch (t.scalar_type()) {
    case at::kFloat:
    case at::kDouble:
    case at::kBFloat16:
    case at::kLong:
    case at::kInt:
    case at::kByte: return t;
    default: return t.view({-1}).view(at::kByte);
  }
}

void fill_header(at::Tensor& header, const model::Tensors& tensors) {
  if (tensors.size() > TensorLink::kMaxTensors) {
    throw error(Code::kInvalidArgument, "a layer hands on {} tensors; expected at most {}", tensors.size(), TensorLink::kMaxTensors);
  }
  int64_t* field = header.data_ptr<int64_t>();
  *field++ = static_cast<int64_t>(tensors.size());
  for (const at::Tensor& t : tensors) {
    if (t.dim() > TensorLink::kMaxDims) throw error(Code::kInvalidArgument, "a layer hands on a tensor of {} dims; expected at most {}", t.dim(), TensorLink::kMaxDims);
    field[0] = static_cast<int64_t>(t.scalar_type());
    field[1] = t.requires_grad() ? 1 : 0;
    field[2] = t.dim();
    std::copy(t.sizes().begin(), t.sizes().end(), field + 3);
    field += kFieldsPerTensor;
  }
}

}  // namespace

std::vector<TensorLink::Announced> TensorLink::read_header(const at::Tensor& header, int from) const {
  const int64_t* field = header.data_ptr<int64_t>();
  const int64_t count = *field++;
  const auto nonsense = [&](const char* what, int64_t value) {
    return error(Code::kInternal, "{}: activation header from rank {} has {} {}", ranks_.name(), from, what, value);
  };
  if (count < 0 || count > kMaxTensors) throw nonsense("a tensor count of", count);
  std::vector<Announced> out;
  for (int64_t i = 0; i < count; ++i, field += kFieldsPerTensor) {
    if (field[0] < 0 || field[0] >= static_cast<int64_t>(at::ScalarType::NumOptions)) throw nonsense("dtype", field[0]);
    if (field[2] < 0 || field[2] > kMaxDims) throw nonsense("a number of dims of", field[2]);
    const at::IntArrayRef sizes(field + 3, static_cast<size_t>(field[2]));
    for (const int64_t size : sizes) {
      if (size < 0 || size > (int64_t{1} << 32)) throw nonsense("a dim of", size);
    }
    out.push_back({{sizes.vec(), static_cast<at::ScalarType>(field[0])}, field[1] != 0});
  }
  return out;
}

void TensorLink::PendingSend::post(comm::Communicator& ranks, const at::Tensor& tensor, int to, int tag) {
  tensors.push_back(tensor.detach().contiguous());
  works.push_back(ranks.send(on_the_wire(tensors.back()), to, tag));
}

void TensorLink::PendingSend::wait(Deadline deadline) {
  for (const auto& work : works) work->wait(deadline);
}

void TensorLink::send_activation(int to, int key, const model::Tensors& tensors) {
  at::Tensor header = buffers_.take({kHeaderSize}, at::kLong);
  fill_header(header, tensors);
  PendingSend& message = activations_.emplace_back();
  message.key = key;
  message.post(ranks_, header, to, tag_of(key, Part::kHeader));
  meet_expected_receives(message, tensors, to);
  for (const at::Tensor& t : tensors) message.post(ranks_, t, to, tag_of(key, Part::kActivation));
}

void TensorLink::meet_expected_receives(PendingSend& message, const model::Tensors& tensors, int to) {
  const std::vector<TensorShape>* expected = sent_.expected(message.key);
  const std::vector<TensorShape> shapes = shapes_of(tensors);
  if (expected != nullptr && *expected != shapes) {
    for (const TensorShape& shape : *expected) message.post(ranks_, buffers_.take(shape.sizes, shape.dtype, device_), to, tag_of(message.key, Part::kActivation));
  }
  sent_.note(message.key, shapes);
}

void TensorLink::post_receive(Expected& expected, const TensorShape& shape) {
  expected.tensors.push_back(buffers_.take(shape.sizes, shape.dtype, device_));
  at::Tensor wire = on_the_wire(expected.tensors.back());
  expected.works.push_back(ranks_.recv(wire, expected.from, tag_of(expected.key, Part::kActivation)));
}

TensorLink::Expected TensorLink::expect_activation(int from, int key) {
  Expected expected{from, key, {buffers_.take({kHeaderSize}, at::kLong)}, {}};
  expected.works.push_back(ranks_.recv(expected.tensors[0], from, tag_of(key, Part::kHeader)));
  if (const auto* shapes = received_.expected(key)) {
    for (const TensorShape& shape : *shapes) post_receive(expected, shape);
  }
  return expected;
}

model::Tensors TensorLink::wait_activation(Expected expected, bool training, Deadline deadline) {
  expected.works[0]->wait(deadline);
  const std::vector<Announced> announced = read_header(expected.tensors[0], expected.from);
  std::vector<TensorShape> shapes;
  for (const Announced& a : announced) shapes.push_back(a.shape);
  const std::vector<TensorShape>* foreseen = received_.expected(expected.key);
  size_t first = 1;  // behind the header
  if (foreseen == nullptr || *foreseen != shapes) {
    first = expected.tensors.size();
    for (const TensorShape& shape : shapes) post_receive(expected, shape);
  }
  received_.note(expected.key, shapes);
  for (size_t i = 1; i < expected.works.size(); ++i) expected.works[i]->wait(deadline);
  model::Tensors out;
  for (size_t i = 0; i < announced.size(); ++i) {
    at::Tensor& tensor = expected.tensors[first + i];
    if (training && announced[i].wants_gradient) tensor.requires_grad_(true);
    out.push_back(tensor);
  }
  return out;
}

void TensorLink::send_gradients(int to, int key, const model::Tensors& gradients, Deadline deadline) {
  while (gradients_.size() >= kMaxPendingGradients) {
    gradients_.front().wait(deadline);
    gradients_.pop_front();
  }
  PendingSend& message = gradients_.emplace_back();
  message.key = key;
  for (const at::Tensor& g : gradients) message.post(ranks_, g, to, tag_of(key, Part::kGradient));
}

void TensorLink::release_activation(int key, Deadline deadline) {
  std::erase_if(activations_, [&](PendingSend& message) {
    if (message.key != key) return false;
    message.wait(deadline);
    return true;
  });
}

TensorLink::Expected TensorLink::expect_gradients(int from, int key, const model::Tensors& like) {
  Expected expected{from, key, {}, {}};
  for (const at::Tensor& t : like) {
    if (!t.requires_grad()) continue;
    expected.tensors.push_back(buffers_.take(t.sizes(), t.scalar_type(), device_));
    at::Tensor wire = on_the_wire(expected.tensors.back());
    expected.works.push_back(ranks_.recv(wire, from, tag_of(key, Part::kGradient)));
  }
  return expected;
}

model::Tensors TensorLink::wait_gradients(Expected expected, Deadline deadline) {
  for (auto& work : expected.works) work->wait(deadline);
  return std::move(expected.tensors);
}

void TensorLink::flush(Deadline deadline) {
  for (auto* pending : {&activations_, &gradients_}) {
    for (PendingSend& message : *pending) message.wait(deadline);
    pending->clear();
  }
  buffers_.end_step();
}

}  // namespace penstock::pipeline
